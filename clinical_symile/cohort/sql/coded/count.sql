-- How often each code stands with each unit among the results with a value, and what is wrong with those rows whatever their code
-- is. part_rows is the view of one file.
SELECT code, unit,
       CASE
           WHEN bound IS NOT NULL THEN concat('bound ', bound)
           WHEN time IS NULL THEN 'time'
           WHEN value IS NULL THEN 'number'
       END AS fault,
       count(*) AS n
FROM part_rows
WHERE filled
GROUP BY ALL
