SELECT as_id(subject_id) AS subject_id, as_id(hadm_id) AS hadm_id, as_time(admittime) AS admittime, race,
       as_time(dischtime) AS dischtime, as_time(deathtime) AS deathtime
FROM csv
