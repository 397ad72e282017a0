SELECT customers.id FROM customers LEFT JOIN accounts ON accounts.customer = customers.id WHERE accounts.id IS NULL
