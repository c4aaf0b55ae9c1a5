-- The X-rays that lie in an admission's window, by subject and time: strictly later than its start, at most at its end.
-- Only AP and PA, written exactly so. An image that a hospital's own manifest ties to an admission is that admission's; its view
-- and its time are checked where they are known.
INSERT INTO cxr_candidates
SELECT a.hadm_id, i.dicom_id, i.study_id, i.path, i.view, i.time, i.file_order,
       epoch_us(i.time) - epoch_us(a.admittime),
       i.time >= a.admittime AND i.time <= least(a.dischtime, a.deathtime)
FROM admissions AS a
JOIN images AS i ON i.subject_id = a.subject_id
WHERE (i.hadm_id IS NULL OR i.hadm_id = a.hadm_id)
  AND (i.view IN ('AP', 'PA') OR (i.view IS NULL AND i.hadm_id IS NOT NULL))
  AND (
        (i.time > a.admittime + to_microseconds($after_us) AND i.time <= a.admittime + to_microseconds($until_us))
        OR (i.time IS NULL AND i.hadm_id IS NOT NULL)
      )
