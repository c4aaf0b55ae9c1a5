-- How text becomes a value. Each gives NULL for what it cannot read exactly, so that nothing is rounded, cut or guessed.

-- DuckDB's own cast reads '1.5' as 2 and accepts blanks and '1e3'.
CREATE MACRO as_id(text) AS CASE WHEN try_cast(text AS BIGINT)::VARCHAR = text THEN try_cast(text AS BIGINT) END;

-- Date and time of day; DuckDB's own cast drops an offset such as +02:00 without a word, and takes a bare date for midnight.
CREATE MACRO as_time(text) AS CASE WHEN text[5:5] = '-' THEN try_strptime(text, [
    '%Y-%m-%d %H:%M:%S', '%Y-%m-%d %H:%M', '%Y-%m-%d %H:%M:%S.%f', '%Y-%m-%dT%H:%M:%S', '%Y-%m-%dT%H:%M', '%Y-%m-%dT%H:%M:%S.%f'
]) END;

-- Finite decimal numbers; DuckDB's own cast reads '1_000' as 1000.
CREATE MACRO as_number(text) AS CASE
    WHEN isfinite(try_cast(text AS DOUBLE)) AND NOT contains(text, '_') THEN try_cast(text AS DOUBLE)
END;

-- MIMIC-CXR's StudyDate is 21800531; its StudyTime is a number whose leading zeros were lost, with a fraction, which the
-- paper cuts: 84523.417 is 08:45:23, and 3.5 is 00:00:03.
CREATE MACRO as_study_time(study_date, study_time) AS CASE
    WHEN length(study_date) = 8 AND regexp_full_match(study_time, '[0-9]{1,6}([.][0-9]*)?')
    THEN try_strptime(study_date || lpad(split_part(study_time, '.', 1), 6, '0'), '%Y%m%d%H%M%S')
END;
