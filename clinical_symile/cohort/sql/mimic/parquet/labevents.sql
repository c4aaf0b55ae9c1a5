-- Only the 50 items, and only rows with a valuenum.
SELECT as_id(subject_id) AS subject_id, itemid, as_time(charttime) AS time, as_number(valuenum) AS value, valueuom AS unit
FROM csv
