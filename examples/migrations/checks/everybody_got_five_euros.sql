SELECT id, cents FROM accounts WHERE cents <> 500
