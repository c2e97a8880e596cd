//! A backend that registers badly, redirects, lies in headers and numbers.
