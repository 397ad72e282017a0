SELECT id FROM customers WHERE first_name = '' OR last_name = ''
