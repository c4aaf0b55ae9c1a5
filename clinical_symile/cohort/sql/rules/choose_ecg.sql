-- The ECG of each admission that is left: the earliest of its candidates. Ties: the earlier row of record_list.csv, then the smaller
-- id, then the path. (The paper's script sorts by time alone, with pandas' unstable sort: up to 16 candidates that is the same.)
INSERT INTO chosen_ecg
SELECT hadm_id, study_id, path, time
FROM ecg_candidates
WHERE hadm_id IN (SELECT hadm_id FROM admissions)
QUALIFY row_number() OVER (PARTITION BY hadm_id ORDER BY time, file_order, study_id, path) = 1
