-- Track 2 lies in 000/000002.mp3: six digits at least, and a folder named by the first three.
SELECT csv_line, concat(substr(name, 1, 3), '/', name, '.mp3') AS clip_key, * EXCLUDE (csv_line, name)
FROM (
    SELECT *, lpad(CAST(track_id AS VARCHAR), greatest(6, length(CAST(track_id AS VARCHAR))), '0') AS name
    FROM typed
)
