-- What the chosen files and values hold that each strict rule would have left out: rule, count, and in words what is counted.
SELECT 'cxr_during_stay', count(*), 'X-rays', 'taken after discharge or death'
FROM chosen_cxr WHERE NOT in_stay AND hadm_id IN (SELECT hadm_id FROM admissions)
UNION ALL
SELECT 'one_admission_per_study', count(*), 'X-ray studies', 'that serve more than one admission'
FROM (
    SELECT coalesce(study_id::VARCHAR, path) AS study FROM chosen_cxr
    WHERE hadm_id IN (SELECT hadm_id FROM admissions) GROUP BY study HAVING count(*) > 1
)
UNION ALL
SELECT 'one_admission_per_study', count(*), 'ECGs', 'that serve more than one admission'
FROM (
    SELECT coalesce(study_id::VARCHAR, path) AS study FROM chosen_ecg
    WHERE hadm_id IN (SELECT hadm_id FROM admissions) GROUP BY study HAVING count(*) > 1
)
UNION ALL
SELECT 'expected_lab_units', count(*), 'lab values', 'in another unit than their item''s'
FROM chosen_labs WHERE NOT unit_fits
UNION ALL
SELECT 'plausible_labs', count(*), 'lab values', 'beyond physiological limits'
FROM chosen_labs WHERE NOT plausible
UNION ALL
SELECT 'no_flat_ecg_leads', count(*), 'ECGs', 'with a flat lead'
FROM chosen_ecg WHERE path IN (SELECT path FROM flat_ecgs) AND hadm_id IN (SELECT hadm_id FROM admissions)
