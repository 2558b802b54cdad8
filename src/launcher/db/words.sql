-- What an owner says of an instance beside its name: free text, labels (a JSON list), and why it is locked.
ALTER TABLE instances ADD COLUMN description TEXT;
ALTER TABLE instances ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';
ALTER TABLE instances ADD COLUMN lock_reason TEXT;
