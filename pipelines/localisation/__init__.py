"""When and where: intervals and boxes from the attention of a fitted head."""
