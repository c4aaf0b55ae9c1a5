-- One file of OMOP's measurement table. The concept table turns concept ids into codes; a unit that has no concept is taken as the
-- hospital wrote it. Only patients of the manifest take part. Times are read only where the code may be one of the 50 items'. 4172703 is the operator '='.
CREATE OR REPLACE TEMP VIEW part_rows AS
SELECT m._person AS person,
       coalesce(c.code, concat('concept ', coalesce(m._concept, 0))) AS code,
       coalesce(CASE WHEN m._unit_concept <> 0 THEN coalesce(u.code, concat('concept ', m._unit_concept)) END, m._unit_text, '') AS unit,
       CASE WHEN m._operator NOT IN (0, 4172703) THEN m._operator::VARCHAR END AS bound,
       CASE WHEN c.mapped THEN {time} END AS time,
       {value} AS value,
       m._value_text IS NOT NULL AS filled,
       {file_order} AS file_order
FROM (
    SELECT *, {person} AS _person, {concept} AS _concept, {unit_concept} AS _unit_concept, {unit_text} AS _unit_text,
           {operator} AS _operator, {value_text} AS _value_text
    FROM {rows}
    WHERE {person} IN (SELECT key FROM subject_keys)
) AS m
LEFT JOIN loinc_concepts AS c ON c.id = m._concept
LEFT JOIN ucum_concepts AS u ON u.id = m._unit_concept
