-- Five euros for everybody: applied twice, it would be ten.
UPDATE accounts SET cents = cents + 500;
