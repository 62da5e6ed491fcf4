-- The database of a study. It knows no method and no run: a server that reads nothing else can give nothing away.
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;  -- title, seed, secrets, when the study ended
CREATE TABLE pictures (id TEXT PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL) STRICT;  -- id.webp
CREATE TABLE subjects (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE photographs (
    subject INTEGER NOT NULL REFERENCES subjects,
    picture TEXT NOT NULL REFERENCES pictures,
    PRIMARY KEY (subject, picture)
) STRICT;
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('pair', 'same', 'noise')),
    subject INTEGER NOT NULL REFERENCES subjects,
    prompt TEXT NOT NULL,
    prompt_index INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    a TEXT NOT NULL REFERENCES pictures,  -- of a noise check: the noise
    b TEXT NOT NULL REFERENCES pictures   -- of a noise check: the photograph
) STRICT;
CREATE TABLE raters (
    id INTEGER PRIMARY KEY,
    token TEXT NOT NULL UNIQUE,
    questions TEXT NOT NULL,  -- keys in the order in which this rater is asked
    created TEXT NOT NULL,
    begun TEXT
) STRICT;
CREATE TABLE plan (
    rater INTEGER NOT NULL REFERENCES raters,
    place INTEGER NOT NULL,  -- from 1
    item INTEGER NOT NULL REFERENCES items,
    b_left INTEGER NOT NULL CHECK (b_left IN (0, 1)),
    PRIMARY KEY (rater, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE votes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rater INTEGER NOT NULL,
    place INTEGER NOT NULL,
    question TEXT NOT NULL CHECK (question IN ('subject', 'prompt')),
    answer TEXT NOT NULL CHECK (answer IN ('left', 'tie', 'right')),
    given TEXT NOT NULL,
    undone TEXT,  -- when it was taken back; nothing is ever deleted
    FOREIGN KEY (rater, place) REFERENCES plan
) STRICT;
CREATE INDEX votes_of_rater ON votes (rater, id);
-- At most one vote that counts for each rater, pair and question, whatever two browser windows send.
CREATE UNIQUE INDEX one_vote ON votes (rater, place, question) WHERE undone IS NULL;
