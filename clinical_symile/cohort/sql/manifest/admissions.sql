-- Every file that the manifest names belongs to the admission in whose row it stands. An empty cell is no file.
INSERT INTO admissions
SELECT s.id, h.id, as_time(admittime), gender, floor(as_number(age))::BIGINT, race,
       CASE WHEN s.replaced THEN s.key END, CASE WHEN h.replaced THEN h.key END, as_time(dischtime), as_time(deathtime)
FROM raw_admissions JOIN subject_keys AS s ON s.key = subject_id JOIN hadm_keys AS h ON h.key = hadm_id;

INSERT INTO images
SELECT s.id, h.id, cxr_path, NULL, cxr_path, upper(cxr_view), as_time(cxr_time), file_order
FROM raw_admissions JOIN subject_keys AS s ON s.key = subject_id JOIN hadm_keys AS h ON h.key = hadm_id
WHERE cxr_path IS NOT NULL;

INSERT INTO records
SELECT s.id, h.id, NULL, ecg_path, as_time(ecg_time), file_order
FROM raw_admissions JOIN subject_keys AS s ON s.key = subject_id JOIN hadm_keys AS h ON h.key = hadm_id
WHERE ecg_path IS NOT NULL
