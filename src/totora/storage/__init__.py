"""Where entries and promises outlive the process. Files are touched only through the `Disk` port."""
