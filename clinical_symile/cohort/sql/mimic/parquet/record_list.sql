SELECT as_id(subject_id) AS subject_id, as_id(study_id) AS study_id, path, as_time(ecg_time) AS time
FROM csv
