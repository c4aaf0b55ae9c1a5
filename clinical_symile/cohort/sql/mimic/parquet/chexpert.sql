SELECT as_id(study_id) AS study_id, as_number(COLUMNS(* EXCLUDE (study_id)))
FROM csv
