// Charts: filled in below by the pages that show one.
export {};
