-- Each customer has an account.
CREATE TABLE accounts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer bigint NOT NULL UNIQUE REFERENCES customers,
    cents bigint NOT NULL DEFAULT 0
);
INSERT INTO accounts (customer) SELECT id FROM customers ORDER BY id;
