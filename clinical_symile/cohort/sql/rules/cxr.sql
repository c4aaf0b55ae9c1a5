-- The X-ray of each admission: the earliest frontal one in the window, strictly later than the start of the window and at most
-- at its end. Images that turned out to be unusable are left out before the earliest is taken. An image that a hospital's own
-- manifest ties to an admission is that admission's; its view and its time are checked where they are known.
-- Ties: the earlier row of the metadata table.
INSERT INTO chosen_cxr
SELECT a.hadm_id, i.dicom_id, i.study_id, i.path, i.view, i.time
FROM admissions AS a
JOIN images AS i ON i.subject_id = a.subject_id AND (i.hadm_id IS NULL OR i.hadm_id = a.hadm_id)
WHERE (i.view IN ('AP', 'PA') OR (i.view IS NULL AND i.hadm_id IS NOT NULL))
  AND (
        (i.time > a.admittime + to_microseconds($after_us) AND i.time <= a.admittime + to_microseconds($until_us))
        OR (i.time IS NULL AND i.hadm_id IS NOT NULL)
      )
  AND i.path NOT IN (SELECT path FROM excluded_files)
QUALIFY row_number() OVER (PARTITION BY a.hadm_id ORDER BY i.time, i.file_order) = 1
