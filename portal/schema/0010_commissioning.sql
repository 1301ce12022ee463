-- What an engineer records while a meter is commissioned.
SET LOCAL search_path = portal, public;
