INSERT INTO images
SELECT subject_id, NULL, dicom_id, study_id, path, view, time, file_order FROM mimic_metadata
