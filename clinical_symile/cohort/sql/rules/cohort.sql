-- The admissions that are left, with what was chosen for each. The columns are the same whatever the rules require.
SELECT a.subject_id, a.hadm_id, a.subject_key, a.hadm_key, a.admittime, a.gender, a.age, a.race,
       c.dicom_id AS cxr_dicom_id, c.study_id AS cxr_study_id, c.path AS cxr_path, c.view AS cxr_view, c.time AS cxr_time,
       e.study_id AS ecg_study_id, e.path AS ecg_path, e.time AS ecg_time,
       l.* EXCLUDE (hadm_id), f.* EXCLUDE (study_id)
FROM admissions AS a
LEFT JOIN chosen_cxr AS c ON c.hadm_id = a.hadm_id
LEFT JOIN chosen_ecg AS e ON e.hadm_id = a.hadm_id
LEFT JOIN labs_by_admission AS l ON l.hadm_id = a.hadm_id
LEFT JOIN findings AS f ON f.study_id = c.study_id
ORDER BY a.hadm_id
