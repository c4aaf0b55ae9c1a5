-- The X-ray of each admission that is left: the earliest of its candidates. Ties: the earlier row of the metadata table, then the
-- smaller id. (The paper's script sorts by time alone, with pandas' unstable sort: up to 16 candidates that is the same.)
INSERT INTO chosen_cxr
SELECT hadm_id, dicom_id, study_id, path, view, time, in_stay
FROM cxr_candidates
WHERE hadm_id IN (SELECT hadm_id FROM admissions)
QUALIFY row_number() OVER (PARTITION BY hadm_id ORDER BY time, file_order, dicom_id) = 1
