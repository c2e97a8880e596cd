//! A stranger's text on a terminal and on the page.
