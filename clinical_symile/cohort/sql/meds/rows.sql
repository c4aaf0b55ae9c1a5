-- One file of a MEDS data set; only patients of the manifest take part. Its unit is '' where the data have no such column: it may then be part of the code, or stand in
-- metadata/codes.parquet.
CREATE OR REPLACE TEMP VIEW part_rows AS
SELECT {person} AS person, {code} AS code, coalesce({unit}, '') AS unit, NULL::VARCHAR AS bound, {time} AS time,
       {value} AS value, {value_text} IS NOT NULL AS filled, {file_order} AS file_order
FROM {rows}
WHERE {person} IN (SELECT key FROM subject_keys)
