"""What `--model` takes, listed; what models cost; variants of one."""
