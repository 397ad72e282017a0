-- Customers have a first and a last name from now on, instead of one text.
ALTER TABLE customers ADD COLUMN first_name text, ADD COLUMN last_name text;
UPDATE customers SET first_name = split_part(name, ' ', 1), last_name = substr(name, strpos(name, ' ') + 1);
ALTER TABLE customers DROP COLUMN name;
