-- An X-ray after discharge or death does not count; one whose time, or whose admission's end, is not known does.
DELETE FROM cxr_candidates WHERE NOT in_stay
