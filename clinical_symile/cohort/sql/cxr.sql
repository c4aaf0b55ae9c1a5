-- The X-ray of each admission: the earliest frontal one in the window, strictly later than $after hours after admission and at
-- most $until hours after it. An image that a hospital's own manifest ties to an admission is that admission's; its window is
-- checked where its time is known. Images that turned out to be unusable stand in excluded_images.
-- Ties: the earlier row of the metadata table.
SELECT a.hadm_id, i.dicom_id, i.study_id, i.path, i.view, i.time
FROM admissions AS a
JOIN images AS i ON i.subject_id = a.subject_id AND (i.hadm_id IS NULL OR i.hadm_id = a.hadm_id)
WHERE (i.view IN ('AP', 'PA') OR (i.view IS NULL AND i.hadm_id IS NOT NULL))
  AND (
        (i.time > a.admittime + to_microseconds($after_us) AND i.time <= a.admittime + to_microseconds($until_us))
        OR (i.time IS NULL AND i.hadm_id IS NOT NULL)
      )
  AND i.path NOT IN (SELECT path FROM excluded_images)
QUALIFY row_number() OVER (PARTITION BY a.hadm_id ORDER BY i.time, i.file_order) = 1
ORDER BY a.hadm_id
