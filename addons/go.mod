module bastide/addons

go 1.26.0
