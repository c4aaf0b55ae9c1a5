-- The value of each admission that is left and each item: the earliest of its candidates.
INSERT INTO chosen_labs
SELECT hadm_id, itemid, first.value, unit_fits, plausible
FROM lab_candidates
WHERE hadm_id IN (SELECT hadm_id FROM admissions)
QUALIFY row_number() OVER (PARTITION BY hadm_id, itemid ORDER BY first) = 1
