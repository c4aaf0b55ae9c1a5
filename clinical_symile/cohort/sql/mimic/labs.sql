-- raw_labs holds only the 50 items and only rows with a valuenum.
INSERT INTO lab_results
SELECT as_id(subject_id), itemid, as_time(charttime), as_number(valuenum), file_order
FROM raw_labs;
DROP TABLE raw_labs
