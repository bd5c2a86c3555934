-- May run again: each revision runs it once.
CREATE TABLE IF NOT EXISTS votes (
    id   VARCHAR(255) PRIMARY KEY,
    vote VARCHAR(255) NOT NULL
);
INSERT INTO votes (id, vote) VALUES ('first', 'a') ON CONFLICT DO NOTHING;
