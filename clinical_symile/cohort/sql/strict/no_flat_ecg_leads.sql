-- A record with a flat lead does not count.
DELETE FROM ecg_candidates WHERE path IN (SELECT path FROM flat_ecgs)
