-- files/p10/p10000032/s50414267/<dicom_id>.jpg
INSERT INTO images
SELECT as_id(subject_id), NULL, dicom_id, as_id(study_id),
       concat('files/p', subject_id[1:2], '/p', subject_id, '/s', study_id, '/', dicom_id, '.jpg'),
       "ViewPosition", as_study_time("StudyDate", "StudyTime"), file_order
FROM raw_images
