-- session: the frames of one session, from its recordings: what was sent, and what the client saw
-- param session session: the session's id
-- columns: con, seq, t, dir, kind, text, meta
SELECT con, seq, t, dir, kind, text, meta
FROM recordings
WHERE session_id = :session AND seq IS NOT NULL
ORDER BY con, seq
