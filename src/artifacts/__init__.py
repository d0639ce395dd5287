"""Every shared file: write (atomic), read (strict), fingerprint."""
