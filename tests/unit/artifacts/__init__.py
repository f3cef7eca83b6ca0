"""Packages: the rules of members, the form of archives, hostile archives, the store on a disk, builds."""
