-- Why a row of labs.csv cannot be used; NULL where it can. A row without a value is left out silently, as in MIMIC.
-- item_faults holds, for each itemid and unit in the file, what is wrong with the two, if anything; else the factor that brings
-- the number into the unit that it becomes.
CREATE TABLE judged_labs AS
SELECT l.*, f.factor, f.becomes,
       CASE
           WHEN f.fault IS NOT NULL THEN f.fault
           WHEN l.subject_id IS NULL THEN 'subject_id is empty'
           WHEN as_time(l.charttime) IS NULL THEN 'charttime is empty or not a time such as 2180-05-31 13:45:00, without an offset'
           WHEN as_number(l.valuenum) IS NULL THEN concat('valuenum of item ', l.itemid, ' is not a number')
       END AS fault
FROM raw_labs AS l
JOIN item_faults AS f ON f.itemid IS NOT DISTINCT FROM l.itemid AND f.unit IS NOT DISTINCT FROM l.valueuom
WHERE l.valuenum IS NOT NULL;

INSERT INTO lab_results
SELECT s.id, l.itemid, as_time(l.charttime), as_number(l.valuenum) * l.factor, l.becomes, l.file_order
FROM judged_labs AS l
JOIN subject_keys AS s ON s.key = l.subject_id
WHERE l.fault IS NULL
