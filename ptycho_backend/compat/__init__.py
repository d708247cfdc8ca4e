"""Names and files of earlier packages: deprecated names, `params.cfg`, and PtychoPINN archives."""
