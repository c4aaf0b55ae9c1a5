-- After the earliest X-ray was taken: when its study has no row of findings, a later X-ray is not tried.
DELETE FROM chosen_cxr WHERE study_id NOT IN (SELECT study_id FROM findings)
