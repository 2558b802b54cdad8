-- The request that the present or the last task came from; a launch and a deletion have columns of their own.
ALTER TABLE instances ADD COLUMN task_request_id TEXT;
ALTER TABLE instances ADD COLUMN task_trace_id TEXT;
ALTER TABLE instances ADD COLUMN shutdown_behaviour TEXT NOT NULL DEFAULT 'stop';
