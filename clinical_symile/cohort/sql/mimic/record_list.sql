INSERT INTO records
SELECT subject_id, NULL, study_id, path, time, file_order FROM mimic_record_list
