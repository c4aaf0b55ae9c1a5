INSERT INTO records
SELECT as_id(subject_id), NULL, as_id(study_id), path, as_time(ecg_time), file_order
FROM raw_records
