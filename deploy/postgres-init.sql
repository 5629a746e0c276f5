-- Runs once, as the superuser, when the database is created. Creates two roles; the sampler's can only read the models.
-- The trainer creates the tables when it starts.
\set ON_ERROR_STOP on
\getenv trainer_password TRAINER_DATABASE_PASSWORD
\getenv sampler_password SAMPLER_DATABASE_PASSWORD

CREATE ROLE rowmint_trainer LOGIN PASSWORD :'trainer_password';
CREATE ROLE rowmint_sampler LOGIN PASSWORD :'sampler_password';
ALTER ROLE rowmint_sampler SET default_transaction_read_only = on;

REVOKE ALL ON DATABASE rowmint FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
-- By default every role may create large objects, which could fill the disk; Rowmint does not use them.
REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
GRANT CONNECT, CREATE ON DATABASE rowmint TO rowmint_trainer;
GRANT CONNECT ON DATABASE rowmint TO rowmint_sampler;

CREATE SCHEMA rowmint_data AUTHORIZATION rowmint_trainer;
CREATE SCHEMA rowmint_models AUTHORIZATION rowmint_trainer;
GRANT USAGE ON SCHEMA rowmint_models TO rowmint_sampler;
ALTER DEFAULT PRIVILEGES FOR ROLE rowmint_trainer IN SCHEMA rowmint_models GRANT SELECT ON TABLES TO rowmint_sampler;
