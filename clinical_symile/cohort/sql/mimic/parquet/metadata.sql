-- The path is files/p10/p10000032/s50414267/<dicom_id>.jpg
SELECT as_id(subject_id) AS subject_id, dicom_id, as_id(study_id) AS study_id,
       concat('files/p', subject_id[1:2], '/p', subject_id, '/s', study_id, '/', dicom_id, '.jpg') AS path,
       "ViewPosition" AS view, as_study_time("StudyDate", "StudyTime") AS time
FROM csv
