package main

// processes are for systems whose processes can be killed and looked after.
var processes map[string]func()
